"""What all reports share: pages from templates, charts of one style, and the machine they were written on."""
