"""Generation: a small class-conditional generator of images, and folders of generated ones."""
