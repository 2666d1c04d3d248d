"""The run-time checker of annotations and shapes; an int passes for a float, as type checkers have it (PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
