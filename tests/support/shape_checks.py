"""Shapes and types of arrays are checked in tests; here is where, and how a run goes without."""

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType

import jaxtyping

CHECKED = "__import__('jaxtyping').jaxtyped(typechecker=__import__('beartype').beartype)"


def check_shapes(*packages: str) -> None:
    """From now on check each function and dataclass of these packages that has a jaxtyping type, or
    an alias that its module makes of one, in an annotation; nested functions go unchecked.

    jaxtyping's own hook checks every function and recompiles nested ones at each call, which took
    two thirds of the CPU time of the store's tests. Types without a shape are left to pyright.
    """
    sys.meta_path.insert(0, _Finder(packages))


@contextmanager
def without_shape_checks() -> Iterator[None]:
    """For whole runs, which make tens of thousands of calls."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


class _Finder(MetaPathFinder):
    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.packages:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType | None:
        source = self.get_data(self.path)
        if b"from jaxtyping import" not in source:
            return super().get_code(fullname)
        tree = ast.fix_missing_locations(_Checks().visit(ast.parse(source)))
        return compile(tree, self.path, "exec", dont_inherit=True)


class _Checks(ast.NodeTransformer):
    """Decorates functions and dataclasses with a shape in an annotation."""

    def __init__(self) -> None:
        self.shapes: set[str] = set()
        """Names of jaxtyping's types, and of the module's own for arrays."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        for child in node.body:
            if isinstance(child, ast.ImportFrom) and child.module == "jaxtyping":
                self.shapes |= {alias.name for alias in child.names}
            if isinstance(child, ast.Assign) and self._have_shapes(child.value):
                self.shapes |= {name.id for name in child.targets if isinstance(name, ast.Name)}
        self.generic_visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        arguments += [each for each in (node.args.vararg, node.args.kwarg) if each is not None]
        if self._have_shapes(node.returns, *(each.annotation for each in arguments)):
            node.decorator_list.append(_checked(node))  # the innermost: others hide annotations
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        fields = [child.annotation for child in node.body if isinstance(child, ast.AnnAssign)]
        if self._have_shapes(*fields):
            node.decorator_list.insert(0, _checked(node))  # after `@dataclass` made its __init__
        self.generic_visit(node)
        return node

    def _have_shapes(self, *annotations: ast.expr | None) -> bool:
        return any(
            isinstance(part, ast.Name) and part.id in self.shapes
            for annotation in annotations
            if annotation is not None
            for part in ast.walk(annotation)
        )


def _checked(node: ast.AST) -> ast.expr:
    return ast.copy_location(ast.parse(CHECKED, mode="eval").body, node)
