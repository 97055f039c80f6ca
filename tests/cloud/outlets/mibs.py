"""What ROOST-ALARM-MIB imports, no more: Debian ships no MIBs of the IETF, for their licence."""

from __future__ import annotations

from pathlib import Path


def _macros(*names: str) -> str:
    body = 'BEGIN TYPE NOTATION ::= "" VALUE NOTATION ::= value(VALUE OBJECT IDENTIFIER) END'
    return "\n".join(f"{name} MACRO ::= {body}" for name in names)


_SMI = f"""SNMPv2-SMI DEFINITIONS ::= BEGIN
org OBJECT IDENTIFIER ::= {{ iso 3 }}
dod OBJECT IDENTIFIER ::= {{ org 6 }}
internet OBJECT IDENTIFIER ::= {{ dod 1 }}
private OBJECT IDENTIFIER ::= {{ internet 4 }}
enterprises OBJECT IDENTIFIER ::= {{ private 1 }}
{_macros("MODULE-IDENTITY", "OBJECT-TYPE", "NOTIFICATION-TYPE")}
Integer32 ::= INTEGER (-2147483648..2147483647)
END
"""
_TC = f"""SNMPv2-TC DEFINITIONS ::= BEGIN
{_macros("TEXTUAL-CONVENTION")}
DisplayString ::= TEXTUAL-CONVENTION
    DISPLAY-HINT "255a"
    STATUS current
    DESCRIPTION "Text."
    SYNTAX OCTET STRING (SIZE (0..255))
TruthValue ::= TEXTUAL-CONVENTION
    STATUS current
    DESCRIPTION "A boolean value."
    SYNTAX INTEGER {{ true(1), false(2) }}
END
"""
_FRAMEWORK = """SNMP-FRAMEWORK-MIB DEFINITIONS ::= BEGIN
IMPORTS TEXTUAL-CONVENTION FROM SNMPv2-TC;
SnmpAdminString ::= TEXTUAL-CONVENTION
    DISPLAY-HINT "255t"
    STATUS current
    DESCRIPTION "Text."
    SYNTAX OCTET STRING (SIZE (0..255))
END
"""
_CONF = f"""SNMPv2-CONF DEFINITIONS ::= BEGIN
{_macros("MODULE-COMPLIANCE", "OBJECT-GROUP", "NOTIFICATION-GROUP")}
END
"""


def write(directory: Path) -> Path:
    """Modules of these names in a directory."""
    directory.mkdir()
    for name, text in (
        ("SNMPv2-SMI", _SMI),
        ("SNMPv2-TC", _TC),
        ("SNMP-FRAMEWORK-MIB", _FRAMEWORK),
        ("SNMPv2-CONF", _CONF),
    ):
        (directory / name).write_text(text)
    return directory
