"""One function per verb; a stage receives a source or a student and never imports one."""
