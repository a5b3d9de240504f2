"""URLs as sources: read strictly, and never shown with what may be secret in them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pipeline.errors import UsageError

URL_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp")

_ENCODE = "in a user name or password write / as %2F, # as %23, ? as %3F and @ as %40"

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)


def is_url(text: str) -> bool:
    """Whether a source's name is meant as a URL."""
    return _URL.match(text) is not None


def read_url(text: str) -> str:
    """The URL to open, its scheme in lower case: FFmpeg knows no other.

    Raises:
        UsageError: a scheme that is not read, or what is no URL. The message holds no part of it
            that may be secret.
    """
    match = _URL.match(text)
    scheme = match[1].lower() if match else ""
    if match is None or scheme not in URL_SCHEMES:
        raise UsageError(f"'{redact(text)}': a stream's scheme is one of {', '.join(URL_SCHEMES)}")
    try:
        parts = urlsplit(text)
        _ = parts.port  # read when asked for: a port that is no number is an error here
    except ValueError as error:
        raise UsageError(f"the {scheme}:// source has no valid host and port; {_ENCODE}") from error
    # With an @ further on, what stands before the first / ? # is half a password as likely as a
    # host and port. The wrong host would be asked for 'user', and its answer shown.
    host = re.sub(r"\[.*\]", "", parts.netloc)
    if ":" in host and "@" not in host and "@" in text:
        raise UsageError(
            f"the {scheme}:// source has an @ behind its first /, # or ?; {_ENCODE}, and in a path "
            "write @ as %40 too"
        )
    return f"{scheme}://{match[2]}"


def redact(url: str) -> str:
    """A URL without user, password, query and fragment: any of them may hold a secret.

    A password may hold what should have been percent-encoded, so everything before the last ``@``
    goes. Where that ``@`` may as well be part of a query, nothing but the scheme is left.
    """
    match = _URL.match(url)
    if match is None:
        return "..."
    before, _at, rest = match[2].rpartition("@")
    if re.search(r"[?#]", before):
        return f"{match[1]}://..."
    return f"{match[1].lower()}://{re.split('[?#]', rest, maxsplit=1)[0]}"
