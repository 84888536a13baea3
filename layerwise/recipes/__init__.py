"""What belongs to a recipe: presets, values as text, contradictions between fields."""
