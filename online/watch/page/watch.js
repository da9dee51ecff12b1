// Fills each section with the markup that the server sends when it has changed.
"use strict";

const RETRY_MS = 2000;
const SECTIONS = ["state", "words", "glimpse", "numbers", "curves", "probe", "counters", "events",
  "notes"];
const asked = new URLSearchParams(location.search).get("run");
const query = asked === null ? "" : `?run=${encodeURIComponent(asked)}`;
let source = null;
let retry = 0;

const element = (id) => document.getElementById(id);

function focusable(within) {
  return [...within.querySelectorAll("a, button, summary, [tabindex]")];
}

// New markup must not take the focus, nor scroll back what a reader has scrolled sideways.
function fill(id, markup) {
  const section = element(id);
  const focused = focusable(section).indexOf(document.activeElement);
  const scrolled = [...section.querySelectorAll(".wide")].map((wide) => wide.scrollLeft);
  section.innerHTML = markup;
  section.querySelectorAll(".wide").forEach((wide, i) => { wide.scrollLeft = scrolled[i] || 0; });
  if (focused >= 0) focusable(section)[focused]?.focus({ preventScroll: true });
}

function showRuns(names, shown) {
  const nav = element("runs");
  const focused = focusable(nav).indexOf(document.activeElement);
  nav.replaceChildren(...names.map((name) => {
    const link = document.createElement("a");
    link.href = `?run=${encodeURIComponent(name)}`;
    link.textContent = name;
    if (name === shown) link.setAttribute("aria-current", "page");
    return link;
  }));
  nav.hidden = names.length < 2;
  if (focused >= 0) focusable(nav)[focused]?.focus({ preventScroll: true });
}

let names = [];
let shown = null;

function take(message) {
  connected(true);
  const news = JSON.parse(message.data);
  if ("runs" in news) names = news.runs;
  if ("shown" in news) shown = news.shown;
  if ("runs" in news || "shown" in news) {
    showRuns(names, shown);
    element("name").textContent = shown ?? asked ?? "SetCon";
    document.title = `${shown ?? "no run"} · SetCon`;
    element("report").href = `/report${shown === null ? "" : `?run=${encodeURIComponent(shown)}`}`;
  }
  if (news.words) element("foot").hidden = false; // a run has a report, a store has none
  for (const id of SECTIONS) if (id in news) fill(id, news[id]);
}

function connected(is) {
  document.body.classList.toggle("lost", !is);
  const link = element("link");
  const said = is ? "" : "Connection lost. What you see is old; trying again.";
  if (link.textContent !== said) link.textContent = said;
}

function open() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource(`/events${query}`);
  source.onmessage = take;
  source.onerror = () => {
    connected(false);
    source.close(); // a browser gives up after some kinds of failure: this does not
    clearTimeout(retry);
    retry = setTimeout(open, RETRY_MS);
  };
}

// A page that is not looked at asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(retry);
    source?.close();
  } else open();
});
open();
