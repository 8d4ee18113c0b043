# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""XML elements of a domain as typed values, described once.

The description of an element is a frozen dataclass each of whose fields names a :class:`Binding`: where in the XML the
value is, how it is spelled there, what a person may write for it, and which libvirt knows it. That one description
reads elements, writes them, compares them by meaning, checks values and makes the options of the module.

``None`` in a field means "not said": by the XML, or by the person.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from .._core.errors import PassthroughError, Problem
from .._pci.address import FIELDS, PciAddress

if TYPE_CHECKING:
    from lxml.etree import _Element

Version = tuple[int, int, int]


def version_text(version: Sequence[int]) -> str:
    """A version as people write it."""
    return ".".join(str(number) for number in version)


Value = TypeVar("Value")

_NUMBER = re.compile(r"\s*\+?(0[xX][0-9a-fA-F]+|[0-9]+)")


def libvirt_number(text: str) -> int:
    """A number as libvirt reads it in an address: ``0x0a`` and ``10`` are ten, ``010`` is eight.

    Source: libvirt ``virXMLPropUInt`` with base 0, which is ``strtoul``.

    :raises ValueError: for anything else
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no number")
    digits = match[1]
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16)
    return int(digits, 8 if digits[0] == "0" else 10)


# -- spelling -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spelling:
    """How a value is written: in XML (``read`` takes what libvirt takes), and by a person (``given``).

    ``given`` raises :class:`ValueError` with the rule that the value breaks.
    """

    read: Callable[[str], Any]
    write: Callable[[Any], str]
    given: Callable[[Any], Any]
    type: str
    """Ansible's name of the type."""


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("it is true or false")


# libvirt virXMLPropTristateBool / virXMLPropTristateSwitch: these two words and nothing else.
YES_NO = Spelling(lambda text: text == "yes", lambda value: "yes" if value else "no", _boolean, "bool")
ON_OFF = Spelling(lambda text: text == "on", lambda value: "on" if value else "off", _boolean, "bool")


def whole_number(low: int, high: int) -> Spelling:
    """A decimal number from ``low`` to ``high``."""

    def given(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"it is a whole number from {low} to {high}")

    return Spelling(int, str, given, "int")


def hexadecimal(low: int, high: int) -> Spelling:
    """A number that is written in hexadecimal, as wide as its largest value; in XML with ``0x``."""
    width = len(f"{high:x}")

    def given(value: Any) -> int:
        number = value
        if isinstance(value, str) and re.fullmatch(r"(0x)?[0-9a-f]{1,16}", value.strip(), re.IGNORECASE):
            number = int(value, 16)
        if isinstance(number, int) and not isinstance(number, bool) and low <= number <= high:
            return number
        raise ValueError(f"it is a hexadecimal number from 0x{low:0{width}x} to 0x{high:0{width}x}")

    return Spelling(libvirt_number, lambda value: f"0x{value:0{width}x}", given, "raw")


def one_of(*words: str) -> Spelling:
    """One of a few words."""

    def given(value: Any) -> str:
        if value in words:
            return str(value)
        raise ValueError(f"it is {' or '.join(words)}")

    return Spelling(str, str, given, "str")


def text(pattern: str, rule: str, kind: str = "str") -> Spelling:
    """Text that matches a regular expression as a whole; ``rule`` says so in words."""

    def given(value: Any) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise ValueError(rule)

    return Spelling(str, str, given, kind)


# -- places -------------------------------------------------------------------------------------------------


class Binding(ABC):
    """Where in an element a value is, and all that is known about it."""

    def __init__(
        self,
        option: str | None,
        *,
        argument: Mapping[str, Any] | None = None,
        since: Version | None = None,
        filled: bool = False,
        only: str = "",
    ) -> None:
        """:param option: the option that sets it, dotted where it is a suboption; None when none does
        :param argument: the rest of its entry in the argument spec (``default``)
        :param since: the first libvirt that knows it; older ones drop it without a word
        :param filled: whether libvirt gives it a value of its own when the XML has none
        :param only: the kind of element that alone has it; empty when all have
        """
        self.option = option
        self.argument = dict(argument or {})
        self.since = since
        self.filled = filled
        self.only = only

    @property
    @abstractmethod
    def type(self) -> str:
        """Ansible's name of the option's type."""

    @abstractmethod
    def read(self, element: _Element) -> Any:
        """The value in ``element``, or None.

        :raises ValueError: when it cannot be read
        """

    @abstractmethod
    def write(self, element: _Element, value: Any) -> None:
        """Make ``element`` have ``value``, in place; None takes it out."""

    @abstractmethod
    def given(self, value: Any) -> Any:
        """What a person wrote, as a value.

        :raises ValueError: with the rule that it breaks
        """

    def shown(self, value: Any) -> Any:
        """The value as a JSON value, for results."""
        return value


class Attribute(Binding):
    """An XML attribute of the element or of one below it."""

    def __init__(
        self, path: str, spelling: Spelling, option: str | None, *, absent: Any = None, kind: str = "", **known: Any
    ) -> None:
        """:param path: ``child/@attribute`` or ``@attribute``
        :param absent: what it means that the attribute is not there
        :param kind: the ``type`` attribute of the outermost child, when that one has to be made
        """
        super().__init__(option, **known)
        *self._children, self._name = path.replace("@", "").split("/")
        self._spelling = spelling
        self._absent = absent
        self._kind = kind

    @property
    def type(self) -> str:
        return self._spelling.type

    def read(self, element: _Element) -> Any:
        holder = element.find("/".join(self._children)) if self._children else element
        found = None if holder is None else holder.get(self._name)
        return self._absent if found is None else self._spelling.read(found)

    def write(self, element: _Element, value: Any) -> None:
        if value is None:
            self._take_out(element)
            return
        holder = element
        for depth, name in enumerate(self._children):
            child = holder.find(name)
            if child is None:
                child = add_child(holder, name)
                if depth == 0 and self._kind:
                    child.set("type", self._kind)
            holder = child
        holder.set(self._name, self._spelling.write(value))

    def _take_out(self, element: _Element) -> None:
        path = list(self._children)
        holder = element.find("/".join(path)) if path else element
        if holder is None or holder.attrib.pop(self._name, None) is None:
            return
        while path and len(holder) == 0 and self._says_nothing(holder, outermost=len(path) == 1):
            path.pop()
            above = element.find("/".join(path)) if path else element
            if above is None:
                return
            above.remove(holder)
            holder = above

    def _says_nothing(self, holder: _Element, *, outermost: bool) -> bool:
        return not holder.attrib or (outermost and bool(self._kind) and dict(holder.attrib) == {"type": self._kind})

    def given(self, value: Any) -> Any:
        return self._spelling.given(value)

    def shown(self, value: Any) -> Any:
        return self._spelling.write(value) if value is not None and self.type == "raw" else value


class Address(Binding):
    """The four numbers of a PCI address as attributes of one child element."""

    def __init__(self, path: str, option: str | None, *, kind: str = "", always: bool = False, **known: Any) -> None:
        """:param kind: the ``type`` attribute that the child has to have to be a PCI address; empty for none
        :param always: whether no address at all is 0000:00:00.0 (so libvirt reads a source that names no device)
        """
        super().__init__(option, **known)
        self._always = always
        self._path = path
        self._kind = kind

    @property
    def type(self) -> str:
        return "raw"

    def read(self, element: _Element) -> PciAddress | None:
        child = element.find(self._path)
        if self._always and child is None:
            return PciAddress(0, 0, 0, 0)
        if child is None or (self._kind and child.get("type") != self._kind):
            return None
        if not self._always and not any(name in child.attrib for name in FIELDS):
            return None
        # virPCIDeviceAddressParseXML: an attribute that is missing is 0.
        numbers = [libvirt_number(child.get(name, "0")) for name in FIELDS]
        try:
            return PciAddress(*numbers)
        except PassthroughError as error:
            raise ValueError(error.problems[0].message) from error

    def write(self, element: _Element, value: PciAddress | None) -> None:
        child = element.find(self._path)
        if value is None:
            if child is not None and (not self._kind or child.get("type") == self._kind):
                for name in FIELDS:
                    child.attrib.pop(name, None)
                if len(child) == 0:
                    above = child.getparent()
                    if above is not None:
                        above.remove(child)
            return
        if child is None:
            child = element
            for name in self._path.split("/"):
                below = child.find(name)
                child = add_child(child, name) if below is None else below
        if self._kind:
            child.set("type", self._kind)
        for name, number in value.xml_attributes.items():
            child.set(name, number)

    def given(self, value: Any) -> PciAddress:
        if isinstance(value, Mapping):
            value = {name: number for name, number in value.items() if name in FIELDS and number is not None}
        try:
            return PciAddress.parse(value)
        except PassthroughError as error:
            raise ValueError(error.problems[0].text) from error

    def shown(self, value: Any) -> Any:
        return None if value is None else str(value)


class Assigned(Binding):
    """Whether the guest gets the device: ``<address type='unassigned'/>`` says that it does not.

    Source: libvirt ``VIR_DOMAIN_DEVICE_ADDRESS_TYPE_UNASSIGNED``. The device is taken from the host all the same.
    """

    @property
    def type(self) -> str:
        return "bool"

    def read(self, element: _Element) -> bool:
        child = element.find("address")
        return child is None or child.get("type") != "unassigned"

    def write(self, element: _Element, value: bool | None) -> None:
        child = element.find("address")
        if value is False:
            if child is None:
                child = add_child(element, "address")
            for below in list(child):
                child.remove(below)
            child.attrib.clear()
            child.set("type", "unassigned")
        elif child is not None and child.get("type") == "unassigned":
            element.remove(child)

    def given(self, value: Any) -> bool:
        return _boolean(value)


def add_child(parent: _Element, name: str) -> _Element:
    """Append a new, empty child element."""
    child: _Element = parent.makeelement(name, {}, None)
    parent.append(child)
    return child


# -- descriptions -------------------------------------------------------------------------------------------


def bound(binding: Binding, *, required: bool = False) -> Any:
    """A dataclass field that is described by a binding."""
    metadata = {"binding": binding}
    # pylint: disable-next=invalid-field-call  # it is called in the body of a dataclass, by this name
    return field(metadata=metadata) if required else field(default=None, metadata=metadata)


def bindings(description: Any) -> Iterator[tuple[str, Binding]]:
    """The field names and bindings of a description (the class or a value), in order."""
    for one in fields(description):
        yield one.name, one.metadata["binding"]


def read_element(description: type[Value], element: _Element) -> Value:
    """The value of a description that an element says.

    :raises ValueError: naming the part that cannot be read
    """
    found = {}
    for name, binding in bindings(description):
        try:
            found[name] = binding.read(element)
        except ValueError as error:
            raise ValueError(f"{name.replace('_', ' ')}: {error}") from error
    return description(**found)


def write_element(value: Any, element: _Element) -> None:
    """Make an element say exactly ``value``; whatever else it says stays."""
    for name, binding in bindings(value):
        binding.write(element, getattr(value, name))


def argument_options(description: Any) -> dict[str, Any]:
    """The argument spec of a description's options, suboptions nested."""
    spec: dict[str, Any] = {}
    for _unused, binding in bindings(description):
        if binding.option is None:
            continue
        *groups, name = binding.option.split(".")
        options = spec
        for group in groups:
            entry = options.setdefault(group, {"type": "dict", "options": {}})
            # An option that takes any notation of a value (raw) takes its suboptions as a mapping.
            options = entry.get("options", {})
        options[name] = {"type": binding.type, **binding.argument}
    return spec


def given_values(description: Any, options: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[Problem]]:
    """What a person asked for, as field values, and everything that is wrong with it.

    :param options: the options as Ansible hands them in
    :param where: where they stand (``hostdevs[0]``), for messages
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, binding in bindings(description):
        if binding.option is None:
            continue
        raw: Any = options
        for part in binding.option.split("."):
            raw = raw.get(part) if isinstance(raw, Mapping) else None
        if raw is None:
            continue
        try:
            values[name] = binding.given(raw)
        except ValueError as error:
            rule = str(error).rstrip(".")
            problems.append(
                Problem(
                    "hostdev_value_invalid",
                    f"{where}: {binding.option} {raw!r} is not possible: {rule}.",
                    details={"hostdev": where, "field": binding.option, "value": raw},
                )
            )
    return values, problems


def combined(wanted: Value, present: Optional[Value], *, exact: bool = False) -> Value:
    """``present`` changed to what ``wanted`` says.

    :param exact: whether what ``wanted`` leaves open goes back to nothing, unless libvirt itself fills it in
    """
    if present is None:
        return wanted
    kept = {
        name: getattr(present, name)
        for name, binding in bindings(wanted)
        if getattr(wanted, name) is None and (binding.filled or not exact)
    }
    return replace(wanted, **kept)  # type: ignore[type-var]
