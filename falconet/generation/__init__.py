"""Generation: small class-conditional generators of images, and folders of what they make. Importing it loads no torch."""
