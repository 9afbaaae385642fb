"""The algebra of forms, sites and foldings, plans and graph passes."""
