"""One room per method. Systems are found through the registry; they never import each other."""
