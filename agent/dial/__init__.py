"""The host end of DOCKER_HOST=ssh://: a program of its own."""
