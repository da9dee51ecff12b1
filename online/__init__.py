"""The online half: stores served over ZeroMQ, and a SetCon model that learns from what arrives."""
