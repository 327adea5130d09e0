"""What is doubtful about a model from elsewhere: a trial on a few images, with a module for each kind of doubt."""
