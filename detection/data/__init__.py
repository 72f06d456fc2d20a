"""Images with boxes in COCO format, read and checked."""
