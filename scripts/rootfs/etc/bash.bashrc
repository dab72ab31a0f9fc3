# Interactive bash; /etc/profile reads it for login shells. The same prompt, no greeting.
PS1='spine:\w# '
unset HISTFILE
# bay0's words at the first Tab after it: 124 has bash begin anew with what was loaded (bash(1), Programmable Completion).
_bay0_load() { . /usr/share/bash-completion/completions/bay0 && return 124; }
complete -o default -F _bay0_load bay0
