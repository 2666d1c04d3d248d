"""Why a model answers as it does, in pictures, and whether that is true."""
