# Options of hz4's configure: strict about what they accept, because a
# build with a mistyped option looks the same as one without it.

# HZ4_ARG_SWITCH(NAME, VARIABLE, DEFAULT, HELP)
# ---------------------------------------------
# --enable-NAME and --disable-NAME.  Sets the shell variable VARIABLE to yes
# or no; any other word stops configure.
AC_DEFUN([HZ4_ARG_SWITCH],
[AC_ARG_ENABLE([$1], [$4], [$2=$enableval], [$2=$3])
AS_CASE([$$2],
	[yes|no], [],
	[AC_MSG_ERROR([--enable-$1=$$2: the value must be yes or no])])
])# HZ4_ARG_SWITCH

# HZ4_ARG_NUMBER(NAME, VARIABLE, DEFAULT, MIN, MAX, HELP)
# -------------------------------------------------------
# --with-NAME=N.  Sets VARIABLE to a decimal number from MIN to MAX without
# leading zeros; DEFAULT and MAX may be shell expansions.  Anything else,
# --with-NAME and --without-NAME included, stops configure with a message
# that names option, value and range.
AC_DEFUN([HZ4_ARG_NUMBER],
[AC_ARG_WITH([$1], [$6], [$2=$withval], [$2=$3])
AS_CASE([$$2],
	[''|0*|*[[!0-9]]*|?????*], [hz4_in_range=no],
	[AS_IF([test "$$2" -ge $4 && test "$$2" -le $5],
		[hz4_in_range=yes], [hz4_in_range=no])])
AS_IF([test $hz4_in_range = no],
	[AC_MSG_ERROR([--with-$1=$$2: the value must be a number from $4 to $5])])
])# HZ4_ARG_NUMBER

# HZ4_ARG_WITH_AUTO(NAME, VARIABLE, HELP)
# ---------------------------------------
# --with-NAME and --without-NAME.  Sets VARIABLE to yes, no or auto, the
# default; any other word stops configure.
AC_DEFUN([HZ4_ARG_WITH_AUTO],
[AC_ARG_WITH([$1], [$3], [$2=$withval], [$2=auto])
AS_CASE([$$2],
	[yes|no|auto], [],
	[AC_MSG_ERROR([--with-$1=$$2: the value must be yes, no or auto])])
])# HZ4_ARG_WITH_AUTO

# HZ4_CHECK_DIRECTORIES
# ---------------------
# Stop at a directory that is to be installed into and that make, sed, the
# shell, the linker (commas) or LD_PRELOAD (colons) would take apart.  They may
# name one another as ${prefix}.
AC_DEFUN([HZ4_CHECK_DIRECTORIES],
[for hz4_name in prefix exec_prefix bindir sbindir libexecdir datarootdir \
	datadir libdir includedir docdir mandir; do
	AS_VAR_COPY([hz4_dir], [$hz4_name])
	hz4_odd=`AS_ECHO(["$hz4_dir"]) | sed 's/\${@<:@A-Za-z_@:>@*}//g' |
		LC_ALL=C tr -d 'a-zA-Z0-9/._+~@%=^\200-\377-'`
	AS_IF([test -n "$hz4_odd"],
		[AS_CASE([$hz4_name],
			[exec_prefix], [hz4_name=exec-prefix])
		 AC_MSG_ERROR(m4_normalize([--$hz4_name=$hz4_dir: the path must
			be without blanks, commas, colons and signs that the
			shell or make understand]))])
done
])# HZ4_CHECK_DIRECTORIES

# HZ4_DEFINE_SWITCH(MACRO, VARIABLE, DESCRIPTION)
# -----------------------------------------------
# Define MACRO in config.h as 1 or 0, so that plain `if' and `#if' work with
# -Wundef, after what is yes or no in VARIABLE.
AC_DEFUN([HZ4_DEFINE_SWITCH],
[AS_IF([test "$$2" = yes],
	[AC_DEFINE([$1], [1], [$3])],
	[AC_DEFINE([$1], [0], [$3])])
])# HZ4_DEFINE_SWITCH
