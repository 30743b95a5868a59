"""Written principles instead of labels (SALMON, arXiv 2310.05910): texts, scores by each, labels from them."""
