"""Thousands of simulated sites in a process: each speaks the real link protocol over real TLS, with a
certificate of its own, and has no store, controllers or hosts behind it.

`stream` is what a site tells and how far that was taken in; `things` is what sites have; `site` is one of
them on its link; `crowd` is all of a process; `script` is what befalls them; `enrolling` gives them
certificates; `process` is the program, and `many` runs several of them.
"""
