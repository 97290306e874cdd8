"""Building blocks without knowledge of any task: recurrent stacks and attention."""
