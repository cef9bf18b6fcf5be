# Passes bytes of stdin to stdout, and the same bytes to descriptor 3, from which they are summed up
# (store.sh and parts.sh run this; docs/decisions/0027-stored-streams-pass-a-few-lines-of-perl.md).
#
#   perl double.pl BYTES on|off
#
# Reads no byte more than BYTES. With "on" it goes on for descriptor 3 when stdout takes no more. Exit
# status: 0 all passed, or as many as there were; 74 what reads from here has gone, or it cannot be
# written.
use strict;
use Fcntl qw(F_GETFL F_SETFL O_DIRECT);

my ($left, $goes_on) = @ARGV;
my $status = 0;
open(my $sum, '>&=', 3) or fail('descriptor 3');
fcntl($sum, 1031, 1 << 20);    # F_SETPIPE_SZ; see widen in job.sh
$SIG{PIPE} = 'IGNORE';

# A file is written past the page cache where its filesystem can do that: it costs half as much, and
# the cache is left to others. For that the bytes begin at a page, and only the last are fewer.
my $flags = -f STDOUT ? fcntl(STDOUT, F_GETFL, 0) : '';
my $direct = $flags && fcntl(STDOUT, F_SETFL, $flags | O_DIRECT);
my $block = $direct ? 4 << 20 : 64 << 10;
my $bytes = "\0" x (4096 + $block);
substr($bytes, 0, 1) = "\0";    # now it has its own memory, and stays there
my $begin = -unpack('J', pack('P', $bytes)) % 4096;

sub fail {
    print STDERR "cannot pass the stream on: $_[0]: $!\n";
    exit 74;
}

# True if it was on.
sub stop_direct {
    return 0 if !$direct;
    $direct = '';
    return fcntl(STDOUT, F_SETFL, $flags);
}

sub put {
    my ($to, $at, $end) = @_;
    while ($at < $end) {
        my $put = syswrite($to, $bytes, $end - $at, $at);
        if (defined $put) { $at += $put }
        elsif ($to == $sum || !stop_direct()) { return 0 }
    }
    return 1;
}

my $end = $begin;
while (1) {
    # As much as a pipe has by itself: more at once does not stay in the processor's cache.
    my $room = $begin + $block - $end;
    my $most = $left < 65536 ? $left : 65536;
    my $got = $left ? sysread(STDIN, $bytes, $most < $room ? $most : $room, $end) : 0;
    fail('reading') if !defined $got;
    put($sum, $end, $end + $got) or fail('summing up');
    $left -= $got;
    $end += $got;
    next if $got && $end < $begin + $block;
    if (!$status) {
        stop_direct() if ($end - $begin) % 4096;
        if (!put(\*STDOUT, $begin, $end)) {
            fail('writing') if $goes_on ne 'on';
            $status = 74;
        }
    }
    last if !$got;
    $end = $begin;
}
# A filesystem may tell only now that it has no room.
close(STDOUT) or $status or fail('writing');
exit $status;
