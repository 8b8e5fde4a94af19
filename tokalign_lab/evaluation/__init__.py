"""What can be measured: lexicon scores, held-out twins, bits per byte."""
