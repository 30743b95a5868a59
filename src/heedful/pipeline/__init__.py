"""The loop from one recipe: prompts → demonstrations → SFT → rankings → reward model → PPO → evaluation → report."""
