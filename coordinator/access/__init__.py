"""Who asks: credentials that come with requests, and the principals that they prove."""
