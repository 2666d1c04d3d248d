"""What headers are likely to hold, so that deflate finds it there: part of the format, never to be changed."""

DICTIONARY = b"weightbias"
