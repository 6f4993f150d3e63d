#!/usr/bin/perl
# The client of Perl's Authen::SASL, which swaks and many scripts have; see sasl_clients.py.
use strict;
use warnings;
use Authen::SASL qw(Perl);
use JSON::PP;
use MIME::Base64;

my ($service, $host) = @ARGV;
my $client;
my $json = JSON::PP->new->ascii;
$| = 1;

sub encoded { my ($value) = @_; return defined $value ? encode_base64($value, '') : undef }

while (my $line = <STDIN>) {
    my @strings = map { defined $_ ? decode_base64($_) : undef } @{ $json->decode($line) };
    my $said;
    if (@strings == 1) {
        $said = $client->client_step($strings[0]);
    } else {
        my ($mechanism, $user, $password, $authzid, $realm) = @strings;
        my %callback = (user => $user, pass => $password);
        $callback{authname} = $authzid if defined $authzid;
        $callback{realm} = $realm if defined $realm;
        $callback{authname} = $user if $mechanism eq 'ANONYMOUS';
        my $sasl = Authen::SASL->new(mechanism => $mechanism, callback => \%callback);
        $client = $sasl->client_new($service, $host);
        $said = $client->client_start;
        # It has no word for "no initial response".
        undef $said if defined $said && $said eq '' && $mechanism =~ /MD5|LOGIN/;
    }
    print $json->encode([encoded($said), encoded(scalar $client->error)]), "\n";
}
