"""Does the model do what people want, and how sure are we: win rates, reward-model accuracy, with clustered intervals."""
