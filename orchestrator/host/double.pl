# Passes bytes of stdin to stdout, and the same bytes to descriptor 3, from which they are summed up
# (store.sh and parts.sh run this; docs/decisions/0027-…).
#
#   perl double.pl BYTES on|off
#
# Reads no byte more than BYTES. With "on" it goes on for descriptor 3 when stdout takes no more. Exit
# status: 0 all passed, or as many as there were; 74 what reads from here has gone, or it cannot be
# written.
use strict;

my ($left, $goes_on) = @ARGV;
my ($bytes, $status) = ('', 0);
open(my $sum, '>&=', 3) or fail('descriptor 3');
$SIG{PIPE} = 'IGNORE';

sub fail {
    print STDERR "cannot pass the stream on: $_[0]: $!\n";
    exit 74;
}

sub put {
    my ($to, $at) = ($_[0], 0);
    while ($at < length $bytes) {
        my $put = syswrite($to, $bytes, length($bytes) - $at, $at);
        return 0 if !defined $put;
        $at += $put;
    }
    return 1;
}

# As much as a pipe has by itself. More at once is slower: it does not stay in the processor's cache.
while ($left > 0) {
    my $got = sysread(STDIN, $bytes, $left < 65536 ? $left : 65536);
    fail('reading') if !defined $got;
    last if $got == 0;
    $left -= $got;
    if (!$status && !put(\*STDOUT)) {
        fail('writing') if $goes_on ne 'on';
        $status = 74;
    }
    put($sum) or fail('summing up');
}
# A filesystem may tell only now that it has no room.
close(STDOUT) or $status or fail('writing');
exit $status;
