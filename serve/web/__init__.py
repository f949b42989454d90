"""The web page: a Gradio site that is a client of the HTTP API and nothing more."""
