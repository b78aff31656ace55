"""What is added to the pages: boxes, slides, notebooks to take along, hand-outs."""
