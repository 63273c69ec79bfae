"""`sdsnn report`: runs compared on one page and in tables, from the files of their folders."""
