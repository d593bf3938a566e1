"""talkgen: a photo of a person and a recording of speech become a video of that person speaking."""
