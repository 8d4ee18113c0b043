# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The option C(devices) of modules that take device selectors, and the grammar of a selector.

    GRAMMAR is for every module that takes selectors, the standard fragment for those whose option is C(devices).
    """

    DOCUMENTATION = r"""
options:
  devices:
    description:
      - >-
        The PCI devices that are meant, as a list of selectors. The notes describe what a selector is.
      - >-
        For example V({vendor_id: "8086", device_id: "10ca", count: all}), V({interface: enp1s0}),
        V({pf: {address: "01:00.0"}, vf: [0, 1]}) or V(0000:01:10.0).
    type: list
    elements: raw
"""

    GRAMMAR = r"""
options: {}
notes:
  - >-
    A B(selector) says which PCI devices are meant. It is a mapping, and B(all) of its criteria have to hold.
    The criteria are C(address), C(vendor_id), C(device_id), C(subsystem_vendor_id), C(subsystem_device_id),
    C(uid), C(fid), C(pci_class), C(slot), C(interface), C(mac), C(pf) and C(serial); at least one of them is needed.
    A key that is not described here is an error, and so is a value that is not understood.
  - >-
    C(address) is the PCI address, written as C(0000:01:10.0), as C(01:10.0) (domain 0), as libvirt's node device name
    C(pci_0000_01_10_0), or as a mapping of C(domain) (0 when left out), C(bus), C(slot) and C(function).
    In such a mapping a string is hexadecimal, with or without C(0x); a number above 9 has to be in quotes,
    since YAML does not tell in which base it was written.
    Put addresses in quotes, since YAML takes some of them for numbers (C(01:10.0) is 70).
  - >-
    C(vendor_id), C(device_id), C(subsystem_vendor_id) and C(subsystem_device_id) are one to four hexadecimal digits,
    with or without C(0x), B(in quotes). A number is refused, since YAML makes the same number of different spellings.
  - >-
    C(serial) is the PCI Express device serial number as C(lspci -v) prints it (C(00-1b-21-ff-ff-aa-bb-cc)), with
    hyphens, colons or nothing between the bytes, in quotes. It stays with a card that is moved to another slot.
    The functions of a card share it, so it takes C(index) or another criterion to choose one.
    Only root can read it: without root rights it is the error C(serial_unreadable), not a device that does not match.
  - >-
    C(slot) is the name of the physical slot, which the firmware gives (C(PhySlot) of C(lspci -vmm)). It is text, so
    a number has to be in quotes.
  - >-
    C(uid) (up to four digits) and C(fid) (up to eight) are the user-defined id and the function id on IBM Z,
    in hexadecimal with or without C(0x), in quotes. Elsewhere no device has them.
  - >-
    C(pci_class) is the class code or its beginning, as two, four or six hexadecimal digits in quotes (C("02"),
    C("0200"), C("010802")), or one of the names C(storage), C(scsi), C(ide), C(raid), C(sata), C(sas), C(nvme),
    C(network), C(ethernet), C(infiniband), C(display), C(gpu) (the same as C(display)), C(vga), C(multimedia),
    C(audio), C(serial), C(usb), C(xhci), C(ehci), C(fibrechannel), C(wireless), C(encryption), C(accelerator) and
    C(bridge).
  - >-
    C(interface) is the name of a network interface of the device, C(mac) its present MAC address, in quotes.
    A device has an interface only while a driver of the host is bound to it. Once this collection has bound it to
    C(vfio-pci) it is found by those it had; bound by anything else, it is not found by these two criteria.
  - >-
    C(pf) is a selector of exactly one SR-IOV physical function; its virtual functions are meant.
    C(vf) says which of them, as an index from 0 on, a list of indices, or V(all).
    Without C(vf) the other criteria have to choose.
  - >-
    B(Exactly one) device has to match. C(count) says otherwise, with a number that has to be met exactly, or with
    V(all), which means one or more. C(vf) with a list or with V(all) says it too. C(index) takes one of several that
    match, counted from 0 in the order of their addresses.
    No match and too many matches are errors that list the candidates.
  - >-
    C(expect) is a mapping of C(vendor_id), C(device_id), C(subsystem_vendor_id), C(subsystem_device_id), C(serial),
    C(uid) and C(fid) which the device that was found must have. When it has not, the error C(identity_mismatch) names
    every difference.
    So an address that moved when hardware was added or removed is an error, and never the wrong device.
  - >-
    C(name) is a label of your choice, used in messages. Every name can be given once.
  - >-
    A selector may also be a string, which is handy in ad-hoc use. It is an address as above, vendor and
    device id (C(8086:10ca)), or else the name of a network interface.
"""
