"""What the documents say is what the product does: references, the tutorial, the site."""
