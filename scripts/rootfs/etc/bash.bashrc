# Interactive bash that is not a login shell: the same prompt, no greeting.
PS1='spine:\w# '
unset HISTFILE
