"""Language: the text and the JSON of forms."""
