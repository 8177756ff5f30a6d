"""One HTML page that shows a store; what it is made of lies beside as HTML, CSS and JavaScript."""
