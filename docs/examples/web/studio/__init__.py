"""A web application around talkgen: upload a photo and a recording, watch, get the video.

`app` assembles it; `host` holds what lives as long as the server; every other module has one
subject. Start it with `python -m studio`.
"""
