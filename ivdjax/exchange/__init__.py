"""To our trees from other tools' folders, and back."""
