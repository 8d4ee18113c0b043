# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.grub_script import (
    GrubSyntaxError,
    arguments,
    boot_entries,
    commands,
    uses_boot_loader_specification,
)

CONFIG = r"""
### BEGIN /etc/grub.d/00_header ###
if [ "${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
fi
function load_video {
  if [ x$feature_all_video_module = xy ]; then insmod all_video; else insmod efi_gop; fi
}
### END /etc/grub.d/00_header ###
### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1-2' {
    load_video
    search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1  1-2
    echo    'Loading Linux 6.1.0-13-amd64 ...; linux /nothing'
    linux    /boot/vmlinuz-6.1.0-13-amd64 root=UUID=1-2 ro  quiet $vt_handoff dyndbg="file x +p"
    initrd    /boot/initrd.img-6.1.0-13-amd64
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-1-2' {
    menuentry 'Linux 6.1.0-13-amd64 (Rettung)' $menuentry_id_option 'gnulinux-6.1.0-13-amd64-recovery-1-2' {
        linux    /boot/vmlinuz-6.1.0-13-amd64 root=UUID=1-2 ro single \
            continued
    }
}
### END /etc/grub.d/10_linux ###
### BEGIN /etc/grub.d/40_custom ###
# menuentry 'commented' { linux /no }
menuentry "Other (recovery mode)" --id other { if true; then linuxefi /x a; else linux16 /y b;fi; }
linux /outside of=an_entry
### END /etc/grub.d/40_custom ###
""".replace("    ", "\t")


def test_every_entry_is_found_wherever_it_stands() -> None:
    entries = boot_entries(CONFIG)
    assert [(e.title, e.identity, e.section, e.kernel) for e in entries] == [
        ("Debian GNU/Linux", "gnulinux-simple-1-2", "10_linux", "/boot/vmlinuz-6.1.0-13-amd64"),
        (
            "Linux 6.1.0-13-amd64 (Rettung)",
            "gnulinux-6.1.0-13-amd64-recovery-1-2",
            "10_linux",
            "/boot/vmlinuz-6.1.0-13-amd64",
        ),
        ("Other (recovery mode)", "other", "40_custom", "/x"),
        ("Other (recovery mode)", "other", "40_custom", "/y"),
    ]
    assert [entry.is_recovery for entry in entries] == [False, True, True, True]
    assert [entry.is_generated for entry in entries] == [True, True, False, False]
    assert str(entries[0].command_line) == 'root=UUID=1-2 ro quiet $vt_handoff "dyndbg=file x +p"'
    assert str(entries[1].command_line) == "root=UUID=1-2 ro single continued"


@pytest.mark.parametrize(
    ("text", "handed_over"),
    [
        ("a b\tc", ["a", "b", "c"]),
        ('x="1 2"', ['"x=1 2"']),
        (r"x=1\ 2", ['"x=1 2"']),
        ("'x=1 2' y", ['"x=1 2"', "y"]),
        (r"memmap=4G\$16G", ["memmap=4G$16G"]),
        (r'x="\$a\"\\b\c"', [r"x=$a\"\\b\\c"]),
        ("x=a''b", ["x=ab"]),
        ("a#b", ["a#b"]),
        ("x=é", ["x=é"]),
        ("", []),
        ("  ", []),
        ("a\\", ["a"]),
    ],
)
def test_words_are_handed_over_as_grub_does(text: str, handed_over: list[str]) -> None:
    assert [word.handed_over for word in arguments(text)] == handed_over


@pytest.mark.parametrize(
    "text", ["a; b", "a\nb", "a {", "}", "a & b", "a | b", "a > b", "a #b", "#a", "'a", '"a', "a<b"]
)
def test_what_does_not_stay_the_arguments_of_one_command(text: str) -> None:
    with pytest.raises(GrubSyntaxError):
        arguments(text)


@pytest.mark.parametrize("cut", ["### END /etc/grub.d/10_linux", "initrd	/boot", "...; linux"])
def test_a_file_that_was_cut_off_is_no_configuration(cut: str) -> None:
    text = CONFIG[: CONFIG.index(cut)]
    if "END" in cut:
        text = text.rstrip().rstrip("}")
    with pytest.raises(GrubSyntaxError):
        boot_entries(text)


def test_a_block_that_was_never_opened() -> None:
    with pytest.raises(GrubSyntaxError):
        boot_entries("}\n")


def test_boot_loader_specification() -> None:
    assert uses_boot_loader_specification("if true; then\n  blscfg\nfi\n")
    assert not uses_boot_loader_specification("insmod blscfg\n# blscfg\n")


@given(st.text(alphabet=" \t\n'\"\\$#;{}ab=`x"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = list(commands(text))
    except GrubSyntaxError:
        return
    for command in found:
        for word in command.words:
            assert text[word.start : word.end] == word.source
