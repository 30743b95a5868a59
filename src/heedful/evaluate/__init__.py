"""Does the model do what people want, and how sure are we: win rates and accuracies with clustered intervals."""
