"""Codec: integers and floats <-> few bytes, without loss; the format of `model.fnet`, specified in docs/fnet.md.

container  the file: header, names and shapes, checksum
tensors    what kind an array is: constant, grid, table, words
integers   sparse integers as binary decisions
words      bit patterns and codebooks as decisions
symbols    signs and magnitudes as decisions
terms      terms of logits by an element's position
coder      decisions <-> bytes
"""

from falconet.codec.container import Entry as Entry
from falconet.codec.container import decode as decode
from falconet.codec.container import encode as encode
from falconet.codec.container import read_header as read_header
from falconet.codec.container import read_outline as read_outline
