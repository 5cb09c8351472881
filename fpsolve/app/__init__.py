"""Case files, the command line, reports and figures."""
