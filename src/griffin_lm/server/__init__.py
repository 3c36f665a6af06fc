"""The server: OpenAI's interface and sessions, by FastAPI and uvicorn (the extra `serve`)."""
