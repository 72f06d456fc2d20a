"""Images with boxes in COCO's format, read and checked."""
