"""The certificates a TLS ScriptedServer shows: self-signed, for localhost and 127.0.0.1.

The private key below protects nothing.  It is public on purpose, made for tests
and never to be trusted by anything but a test's own `verify=server.ca_file`.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from typing import Tuple

__all__ = ["server_context"]

_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgBgDP6WWnt54zUqQ7
mjnDCe3Nwe53Cb6BU6KG1SP2tfahRANCAAQfj4lo8GMtQI+GrTLYLDTLlCxygAWZ
2RfZWTom2v7BvZ+2ndASn/pQyRTYaM87YSsUPzIsHSIFYrRuNpqyEtHY
-----END PRIVATE KEY-----
"""

# Valid from 2020 to 2126, so that a test may set the clock.
_VALID = """\
-----BEGIN CERTIFICATE-----
MIIB2TCCAX+gAwIBAgICEAEwCgYIKoZIzj0EAwIwMDESMBAGA1UEAwwJbG9jYWxo
b3N0MRowGAYDVQQKDBFhZ2VudHN0cmVhbSB0ZXN0czAgFw0yMDAxMDEwMDAwMDBa
GA8yMTI2MTIzMTIzNTk1OVowMDESMBAGA1UEAwwJbG9jYWxob3N0MRowGAYDVQQK
DBFhZ2VudHN0cmVhbSB0ZXN0czBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABB+P
iWjwYy1Aj4atMtgsNMuULHKABZnZF9lZOiba/sG9n7ad0BKf+lDJFNhozzthKxQ/
MiwdIgVitG42mrIS0dijgYYwgYMwHQYDVR0OBBYEFIGdH54L2rW+mWzoCW10QRv0
5XkVMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgKEMBMGA1UdJQQMMAoG
CCsGAQUFBwMBMCwGA1UdEQQlMCOCCWxvY2FsaG9zdIcEfwAAAYcQAAAAAAAAAAAA
AAAAAAAAATAKBggqhkjOPQQDAgNIADBFAiEAsSz+MiKlEJgI9ge+/jIKM72a/gOg
951yjPB3aRYQGnMCIExPQ4WAx+FrQdsztUxtRpp4x+ZICEjL6xx4uJ78IzdH
-----END CERTIFICATE-----
"""

# The same, but for the year 2000 only.
_EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIB2DCCAX2gAwIBAgICEAIwCgYIKoZIzj0EAwIwMDESMBAGA1UEAwwJbG9jYWxo
b3N0MRowGAYDVQQKDBFhZ2VudHN0cmVhbSB0ZXN0czAeFw0wMDAxMDEwMDAwMDBa
Fw0wMTAxMDEwMDAwMDBaMDAxEjAQBgNVBAMMCWxvY2FsaG9zdDEaMBgGA1UECgwR
YWdlbnRzdHJlYW0gdGVzdHMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQfj4lo
8GMtQI+GrTLYLDTLlCxygAWZ2RfZWTom2v7BvZ+2ndASn/pQyRTYaM87YSsUPzIs
HSIFYrRuNpqyEtHYo4GGMIGDMB0GA1UdDgQWBBSBnR+eC9q1vpls6AltdEEb9OV5
FTAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIChDATBgNVHSUEDDAKBggr
BgEFBQcDATAsBgNVHREEJTAjgglsb2NhbGhvc3SHBH8AAAGHEAAAAAAAAAAAAAAA
AAAAAAEwCgYIKoZIzj0EAwIDSQAwRgIhAPU/EVlxjTY69vjddHu/NzJ8Qh+eGOWi
SFEQSHMJFTTeAiEAzewUxKv3jyW/nhISW4HJBfSctWyXds98YvQ26c99SFs=
-----END CERTIFICATE-----
"""


def server_context(
    directory: tempfile.TemporaryDirectory[str], expired: bool
) -> Tuple[ssl.SSLContext, str]:
    """Write the certificate into `directory`.

    Returns the server's context, and the path of the file a client can verify against.
    """
    certificate = os.path.join(directory.name, "certificate.pem")
    key = os.path.join(directory.name, "key.pem")
    for path, text in ((certificate, _EXPIRED if expired else _VALID), (key, _KEY)):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that hangs up with unread session tickets sends RST where it meant FIN.
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    return context, certificate
