"""Answer the questions of agents about a store: read-only, bounded, and never as if something missing were there."""
