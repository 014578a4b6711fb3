"""An OpenAI-compatible server for diffusion language models, and a page that shows the canvas being uncovered. Needs the extra `serve`."""
