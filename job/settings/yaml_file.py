"""Configuration files: YAML that loses nothing, each mistake named with its file and line.

YAML as such would: a key given twice counts once, `name: 007` is the number 7, `2e-4` is a text,
and a section that is no mapping replaces all of its keys.
"""

from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml

from data.files import read_file
from data.settings.declared import allows, declared, refusal
from job.settings.config import Config
from job.settings.keys import unknown

_MERGE = "tag:yaml.org,2002:merge"  # `<<`, which takes over the keys of an anchor
_NULL = "tag:yaml.org,2002:null"
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def read_yaml(path: str) -> dict[str, Any]:
    """Return the sections and keys of a configuration file.

    Args:
        path: file or URI. A file without settings is one that changes nothing.

    Raises:
        ValueError: it is not UTF-8 or not YAML, a key is unknown or given twice, a section is no
            mapping, or a value is not what its key may be; names file, line and key.
        OSError: it cannot be read.
    """
    text = _decoded(path, read_file(path))
    try:
        return _File(path, text).sections()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        told = " ".join(filter(None, (error.context, error.problem)))
        raise ValueError(f"{path}{line}: is not YAML: {told}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply for a configuration") from None


def _decoded(path: str, content: bytes) -> str:
    """Return the text of a file."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        seems = _MARKS.get(content[:2], "another encoding")
        raise ValueError(f"{path}:{line}: is {seems}, not UTF-8: save the file as UTF-8") from error


class _File:
    """A file's YAML, read by what the keys are declared as."""

    def __init__(self, path: str, text: str):
        self.path = path
        self.loader = yaml.SafeLoader(text)

    def sections(self) -> dict[str, Any]:
        """Return all sections and keys that the file sets."""
        root = self.loader.get_single_node()
        return {} if root is None else self.section(root, Config, "")

    def section(self, node: yaml.Node, cls: type, key: str) -> dict[str, Any]:
        """Return the keys of a section; an empty one sets nothing."""
        if node.tag == _NULL:
            return {}
        if not isinstance(node, yaml.MappingNode):
            shown = f"the section {key} is {_shown(node)}" if key else f"is {_shown(node)}"
            raise self.wrong(node, f"{shown}: give it keys, each in a line `key: value`")

        found = {}
        for name, (at, content) in self.items(node, key).items():
            full = f"{key}.{name}".lstrip(".")
            if name not in declared(cls):
                raise self.wrong(at, unknown(full))
            found[name] = self.value(content, declared(cls)[name], full)
        return found

    def items(self, node: yaml.MappingNode, key: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Return name -> key and value of a mapping."""
        own = [at for at, _ in node.value if at.tag != _MERGE]
        first: dict[str, yaml.Node] = {}
        for at in own:
            if not isinstance(at, yaml.ScalarNode):
                raise self.wrong(at, f"{key or 'the file'} has a key that is no name")
            if at.value in first:
                full = f"{key}.{at.value}".lstrip(".")
                line = first[at.value].start_mark.line + 1
                raise self.wrong(at, f"{full} is given twice, before in line {line}: keep one")
            first[at.value] = at
        self.loader.flatten_mapping(node)
        return {at.value: (at, content) for at, content in node.value}

    def value(self, node: yaml.Node, hint: Any, key: str) -> Any:
        """Return the value of a key or section."""
        if is_dataclass(hint):
            return self.section(node, hint, key)  # type: ignore[arg-type]
        found = self.constructed(node, hint, key)
        checked = _has_sections(hint) and isinstance(found, dict)  # each section, on the way
        if not checked and not allows(hint, found):
            raise self.wrong(node, refusal(key, found, hint))
        return found

    def constructed(self, node: yaml.Node, hint: Any, key: str) -> Any:
        """Return what a node holds, as its declared type takes it."""
        hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        inner = get_args(hint)
        if isinstance(node, yaml.MappingNode) and get_origin(hint) is dict:
            return {
                name: self.value(content, inner[1], f"{key}.{name}")
                for name, (_, content) in self.items(node, key).items()
            }
        if isinstance(node, yaml.SequenceNode):
            of_items = _of_items(hint, len(node.value))
            return [
                self.constructed(item, of_item, key)
                for item, of_item in zip(node.value, of_items, strict=True)
            ]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, hint)
        return self.loader.construct_object(node, deep=True)

    def scalar(self, node: yaml.ScalarNode, hint: Any) -> Any:
        """Return a value without parts; text stays as it was written."""
        kinds = _kinds(hint)
        null = node.tag == _NULL
        if str in kinds and not null:
            return node.value
        if node.value in kinds and not null:  # a choice
            return node.value
        found = self.loader.construct_object(node)
        if float in kinds and isinstance(found, str):  # 2e-4 is a text in YAML 1.1
            try:
                return float(found)
            except ValueError:
                return found
        return found

    def wrong(self, node: yaml.Node, what: str) -> ValueError:
        """Return the error for a place in the file."""
        return ValueError(f"{self.path}:{node.start_mark.line + 1}: {what}")


def _shown(node: yaml.Node) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else "a list"


def _kinds(hint: Any) -> set[Any]:
    """Return the types without parts, and the choices, that a declared type consists of."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _kinds(get_args(hint)[0])
    if origin is Literal:
        return set(get_args(hint))
    if origin is None:
        return {hint}
    return {kind for arg in get_args(hint) for kind in _kinds(arg)}


def _of_items(hint: Any, count: int) -> list[Any]:
    """Return the declared types of a list's items."""
    origin = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        return _of_items(args[0], count)
    if origin is list or (origin is tuple and args[-1] is Ellipsis):
        return [args[0]] * count
    if origin is tuple:
        return [*args, *[Any] * count][:count]
    # a choice between a list and something else
    lists = [arg for arg in args if get_origin(arg) in (list, tuple)]
    return _of_items(lists[0], count) if lists else [Any] * count


def _has_sections(hint: Any) -> bool:
    """Tell whether a type is a table of sections."""
    return get_origin(hint) is dict and is_dataclass(get_args(hint)[1])
