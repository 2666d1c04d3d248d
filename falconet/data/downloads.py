"""Files at web addresses, fetched within bounds of size and time."""

from __future__ import annotations

import time
import urllib.request
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import cast
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from falconet.errors import DataError

_LARGEST = 1 << 30
"""Most bytes of a file, as of one on disk that holds a sample."""
_PATIENCE = 20.0
"""Longest wait for a byte, in seconds."""
_LONGEST = 600.0
"""Longest time for a whole file in seconds, since a server may send a byte at a time."""
_CHUNK = 1 << 18
_SUFFIXES = {
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "text/plain": ".txt",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
}
"""Suffixes of files whose URL has none, by the media type that the server names."""


def fetch_url(url: str, folder: Path, *, largest: int = _LARGEST, patience: float = _PATIENCE) -> Path:
    """Write what an http or https address holds into a folder, under the last part of its path, and return where.

    Redirections are followed, and the last address counts.
    Raises DataError, in one line, where there is no such file or no network, for more than `largest` bytes, and where
    nothing comes for `patience` seconds or not all of it in ten minutes.
    """
    try:
        with _open_url(url, patience) as response:
            path = folder / _name_file(response.url, response.headers)
            declared = response.headers.get("Content-Length", "")
            if declared.isdecimal():
                _check_length(url, int(declared), largest)
            begun, count = time.monotonic(), 0
            with path.open("xb") as file:
                while chunk := response.read1(_CHUNK):
                    count += len(chunk)
                    _check_length(url, count, largest)
                    if time.monotonic() - begun > _LONGEST:
                        raise DataError(f"{url}: wanted all of it in {_LONGEST:g} seconds, found {count:,} bytes")
                    file.write(chunk)
            if declared.isdecimal() and count < int(declared):
                raise DataError(f"{url}: wanted {int(declared):,} bytes, found {count:,}: the connection broke off")
            return path
    except HTTPError as error:
        error.close()
        raise DataError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = error.reason if isinstance(error, URLError) else error
        said = getattr(reason, "strerror", None) or " ".join(str(reason).split()) or type(reason).__name__
        raise DataError(f"{url}: cannot be fetched: {said}") from error


def _open_url(url: str, patience: float) -> HTTPResponse:
    """Ask for an address. Redirections lead to http and https alone, never to files of this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    request = urllib.request.Request(url, headers={"User-Agent": "falconet"})  # noqa: S310 - no handler opens others
    return cast("HTTPResponse", opener.open(request, timeout=patience))


def _check_length(url: str, count: int, largest: int) -> None:
    """Raise DataError for a file that is larger than wanted."""
    if count > largest:
        raise DataError(
            f"{url}: wanted at most {largest:,} bytes, found {count:,} or more; fetch it, and name the file"
        )


def _name_file(url: str, headers: HTTPMessage) -> str:
    """Return the name under which a file is kept, whose extension tells what it is."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name[-80:].replace("\0", "").lstrip(".") or "file"
    known = _SUFFIXES.get(headers.get_content_type(), "") if "Content-Type" in headers else ""
    return name if PurePosixPath(name).suffix or not known else name + known
