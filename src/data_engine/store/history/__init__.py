"""What a store held earlier: an undo log of all changes of its files, and the files as they were at an instant."""
