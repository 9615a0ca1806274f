-- Open uploads are found by their age.
ALTER TABLE uploads ADD INDEX uploads_open (state, initiated);
